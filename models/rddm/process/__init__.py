"""Forward process, schedules, objectives and losses."""
