"""Figures: runs as pictures, each computed as plain values first and drawn afterwards.

layout     a paper's figures, as data              ablation   scores along a parameter, or by method
along      which runs differ in a parameter alone  attention  where runs look, over the image
gather     runs that may stand in one figure       cost       score against cost, for all methods
notes      what stands below a figure              placement  where a patch grid lies on an image
style      colours, sizes, saving                  labels     names that do not overlap

Each of the three has its drawing in a file of its own, `*_picture.py`.
"""
