"""Compare results of the same tasks, sample by sample, and write the page that shows the difference.

    folders           which results a path stands for
    reading           result folders, checked
    comparable        what differs between two results, and refusing it
    statistics        paired intervals and p-values on plain arrays
    compare, effects  results of the same tasks -> numbers
    notes, wording    what must be said beside the numbers, and how they are written
    tables            terminal, JSON, CSV, Markdown, every win and loss
    drawing, plots    scores, effects and losses as SVG and PNG
    gallery           which answers are shown, with their pictures
    training_record   what a run folder tells of its training
    report            everything on one self-contained HTML page

This package reads result and run folders only. It knows nothing about models, image tensors or benchmarks.
"""
