"""From noisy image-caption pairs to a leaderboard of multimodal models.

Dependencies inside this package point one way::

    records, images <- operators, captioners <- datasets <- mgm <- evaluation <- report

``configuration`` knows names, not work, and imports neither torch nor pandas.
"""
