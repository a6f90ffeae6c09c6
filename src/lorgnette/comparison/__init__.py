"""Compare results of the same task, sample by sample, and write the page that shows the difference.

    statistics   paired intervals and p-values on plain arrays
    compare      two result folders -> one comparison, its JSON, its table
    plots        loss curves and before/after bars as inline SVG
    wording      how numbers, names and files are written
    report       everything on one self-contained HTML page

This package reads result files only. It knows nothing about models, image tensors or benchmarks.
"""
