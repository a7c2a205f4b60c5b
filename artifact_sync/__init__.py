"""What may cross between the training site and the serving site, and under which integrity rule.

This package is the wire: it depends on no sibling, and every sibling depends on it.
"""
