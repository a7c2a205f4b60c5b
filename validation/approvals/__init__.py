"""People's signed decisions about a verdict, and what stands of them."""
