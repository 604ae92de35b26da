"""What a run is: status, configuration, record, folder, pickles, identity. Imports nothing of the other rooms."""
