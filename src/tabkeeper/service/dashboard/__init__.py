"""The dashboard's files, as they are sent. uPlot is Leon Sorokin's, under the MIT licence beside it."""
