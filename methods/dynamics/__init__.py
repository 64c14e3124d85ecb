"""EL2N, forgetting, AUM and CCS: real images chosen by how a classifier learnt them."""
