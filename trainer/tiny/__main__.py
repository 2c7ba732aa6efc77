"""`python -m trainer.tiny` prints the folder of the embedded model, for the shell and for makefiles."""

from trainer.tiny import model_dir

print(model_dir())
