"""What a traced block writes to its standard streams: led into its logs, and still shown where it was to go."""
