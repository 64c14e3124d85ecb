"""The pictures of the site: charts, bars of intervals, contact sheets of images."""
