"""Linear heads that are solved, not trained: penalised least squares with exact leave-one-out, in NumPy and SciPy.

    solve_head(parts, labels, classes=2, ranges=[("mixed0", "mixed1"), ("mixed1",)]) → Solution

`parts` what is read · `scaling` parts on one scale · `gram` matrices of products · `problem` targets and weights ·
`judged` what leave-one-out can judge · `decomposition` and, for many records, `cholesky` fits · `leave_one_out`
residuals of left-out groups · `choice` range and penalty · `large` the chosen range on many records · `room` memory ·
`stratified` subsets and folds · `calibration` probabilities · `solve` all of it.

For a study, which asks more of the same features: `part_grams` one Gram matrix for each part · `every_range` all
ranges, poolings and penalties · `subsets` heads of subsets · `threads` many decompositions at a time.
"""
