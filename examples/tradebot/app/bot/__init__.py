"""A paper-trading bot: a simulated market, a moving-average crossover, trades in SQLite."""
