"""The [model] table of each family: its keys and its facts, one file a family. The union stands in schema/model.py."""
