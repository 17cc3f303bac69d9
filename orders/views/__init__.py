"""What a customer sees, and the door for webhooks. Views translate; the verbs beside this package decide."""
