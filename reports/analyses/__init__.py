"""Questions over several tables: ablations, sweeps, agreement, reproduction."""
