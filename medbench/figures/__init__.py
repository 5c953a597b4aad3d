"""Figures: runs as pictures, each computed as plain numbers first and drawn afterwards.

ablation   scores along a parameter, or as bars          layout      a paper's figures, as data
attention  where runs look, over the image               placement   where a patch grid lies on it
cost       score against cost, for all methods           labels      names that do not overlap
runs       which runs may stand in one figure            style       colours, sizes, saving
"""
