"""One page that shows the samples of runs side by side.

chosen    which runs, and whether they may       joined    their answers, sample by sample
pictures  images and regions from the data       outline   a region as a line around it
maps      attention as bytes                     head      what is said of the runs
content   all of it as data                      page      the data as one HTML file

What the browser runs lies in page/: a script a file, put together when a page is written.
"""
