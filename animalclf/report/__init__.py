"""Tables, plots and the HTML page of run folders."""
