"""What is published: promotion, rollback, emergencies, and the history of all."""
