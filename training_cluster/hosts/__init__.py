"""Where trainings are executed: this machine, or the hosts of an inventory."""
