"""What is for sale and what is there: plans, terms, fees, supply batches, devices."""
