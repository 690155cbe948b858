"""Colors of all figures: those of Okabe and Ito, which color-blind readers can distinguish.

References:
    Okabe & Ito, "Color Universal Design", 2008.
    Tol, SRON technical note SRON/EPS/TN/09-002, 2021.
"""

INK, GRAY, RULE, PAPER = "#1a2029", "#66707c", "#d3d9e0", "#ffffff"
BLUE, VERMILLION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
PURPLE, SKY = "#cc79a7", "#56b4e9"
# Okabe and Ito's colors and three of Tol's, so that ten classes, such as the digits, have a color each.
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK, "#882255", "#8a8a1e", "#a5744a")
