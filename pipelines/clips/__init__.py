"""Raw clips, from their list to utterances. What they become is chosen in `pipelines/extractors`.

table.py           the list: label.csv, words.csv and the files that are there, with what is wrong with them
    label_csv.py, word_times.py, files.py (the bytes of each file, weighed)
decode.py          one clip: sound and pictures on one timeline
    tracks.py, pictures.py, sound.py
extract_clip.py    one clip to features; align.py to words
extract_rows.py    clips to utterances, each in safety from the others
extract_shard.py   a job of `lnln extract`: clips to a shard
predict.py         a model's prediction for a clip, by the extractors it was trained with
sample.py          clips that are drawn, for a first try, tests and the benchmark; drawn_faces.py
"""
