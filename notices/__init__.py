"""What customers are told: notices, their deliveries by channel, and the evidence of both."""
