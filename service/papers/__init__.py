"""Tables and figures of the papers as data: what they train and measure, and the numbers that they print."""
