"""Pages of runs, profiles and predictors: content gathered from their files, charts of it, and one HTML file."""
