"""Drawing: charts by matplotlib, sheets of images by Pillow, in colours that differ for all kinds of colour vision."""
