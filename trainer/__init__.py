"""The DeepSpeed trainer that dpnb's TOML files drive. No widgets, ever; light to import."""
