"""The going of peers: who is late, who is lost, who is charged, who leaves in peace."""
