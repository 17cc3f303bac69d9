"""Who the customer is: the account, its language and its time zone."""
