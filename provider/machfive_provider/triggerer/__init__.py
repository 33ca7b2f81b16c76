"""What the triggers in a triggerer share: one poller, one HTTP client and one queue for room per connection."""
