"""Early exits: read-outs that estimate margins at early layers, so that documents far from the top may stop there."""
