"""The web page of the bot."""
