"""Forms, charts and galleries in ipywidgets; imported by nobody but the public face `dpnb`."""
