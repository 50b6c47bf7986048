"""What the length distributions were fitted to: the Azure LLM inference trace of 2023.

Source: Azure public dataset, "Azure LLM inference trace 2023" (CC-BY), described in Patel et al.,
"Splitwise: Efficient generative LLM inference using phase splitting", ISCA 2024. Only statistics
are held here. ``benchmarks/fit_lengths.py`` reproduces the conversation's tables from its file.
"""

from __future__ import annotations

import numpy as np

# Ranks of the quantile tables: steps of 1/64, and the tails.
PROBABILITIES = np.array(
    [0.0, 0.002, 0.01, *(i / 64 for i in range(1, 64)), 0.99, 0.995, 0.999, 1.0]
)

# Conversation: quantiles of the 19,366 requests of AzureLLMInferenceTrace_conv.csv.
# fmt: off
CONVERSATION_PROMPT = (
    2, 10, 29, 64, 165, 181, 194, 200, 206, 212, 235, 321, 374, 378, 383, 388, 391, 394, 396, 398,
    401, 403, 405, 408, 412, 419, 428, 459, 818, 910, 966, 986, 1001, 1011, 1020, 1028, 1037,
    1044, 1052, 1059, 1067, 1075, 1083, 1092, 1100, 1110, 1120, 1133, 1147, 1164, 1189, 1233,
    1312, 1315, 1335, 1479, 1770, 2019, 2310, 2584, 3018, 4074, 4079, 4084, 4089, 4107, 4142,
    4831, 6212, 14050,
)
CONVERSATION_OUTPUT = (
    7, 12, 16, 18, 33, 40, 45, 49, 53, 56, 60, 64, 68, 72, 75, 78, 81, 83, 85, 87, 89, 90, 92, 94,
    95, 97, 99, 101, 104, 107, 110, 114, 118, 123, 129, 135, 141, 149, 157, 163, 171, 181, 195,
    217, 223, 373, 377, 385, 389, 393, 395, 396, 397, 399, 402, 407, 411, 414, 416, 420, 427, 429,
    440, 456, 502, 568, 601, 644, 954, 1000,
)
# fmt: on

# How many requests fall into each pair of sixteenths by prompt (rows) and by output (columns). The
# rank correlation is only 0.07, yet lengths depend on each other: medium prompts get long answers.
CONVERSATION_JOINT = (
    (139, 23, 37, 29, 31, 40, 75, 153, 202, 262, 212, 0, 0, 0, 1, 7),
    (3, 54, 68, 57, 39, 24, 31, 52, 98, 499, 285, 0, 0, 0, 0, 0),
    (276, 181, 291, 191, 84, 71, 46, 43, 20, 3, 4, 0, 0, 0, 1, 0),
    (11, 59, 130, 189, 230, 217, 173, 119, 64, 16, 2, 0, 0, 0, 0, 0),
    (1, 10, 19, 120, 218, 235, 244, 183, 147, 31, 2, 0, 0, 0, 0, 0),
    (2, 9, 31, 116, 202, 256, 240, 168, 139, 38, 10, 0, 0, 0, 0, 0),
    (52, 62, 64, 122, 151, 138, 127, 149, 50, 19, 21, 53, 45, 49, 61, 47),
    (9, 15, 6, 12, 12, 10, 5, 11, 3, 1, 88, 241, 208, 218, 176, 195),
    (5, 7, 10, 8, 10, 4, 3, 1, 1, 0, 61, 233, 235, 241, 198, 194),
    (3, 12, 7, 5, 3, 7, 4, 2, 3, 2, 68, 207, 207, 217, 230, 233),
    (5, 10, 4, 8, 10, 6, 4, 3, 4, 0, 69, 220, 204, 205, 227, 232),
    (20, 21, 12, 18, 7, 9, 6, 12, 7, 2, 67, 196, 215, 186, 231, 201),
    (25, 42, 27, 27, 19, 8, 12, 31, 176, 207, 244, 56, 88, 89, 79, 80),
    (69, 176, 162, 130, 95, 99, 118, 131, 100, 57, 38, 4, 7, 6, 6, 13),
    (239, 217, 146, 102, 54, 61, 77, 99, 142, 49, 23, 0, 0, 0, 0, 1),
    (352, 312, 197, 76, 45, 26, 45, 53, 55, 24, 17, 0, 1, 0, 0, 7),
)

# Code: the trace's published statistics are medians (1500 prompt and 13 output tokens, Splitwise,
# section III) and means (2048 and 28 of its 8,819 requests). Its prompts end at 7437 tokens, its
# outputs begin at 6.
CODE_PROMPT_LIMIT = 7437
# The Weibull distribution that has this median, and this mean when capped at the limit.
CODE_PROMPT_SHAPE = 1.0426
CODE_PROMPT_SCALE = 2131.9
# 5 + a lognormal with the published median and mean: mu = ln(13 - 5), sigma = sqrt(2 ln(23 / 8)).
CODE_OUTPUT_SHIFT = 5.0
CODE_OUTPUT_MU = 2.0794
CODE_OUTPUT_SIGMA = 1.4533
CODE_OUTPUT_RANGE = (6.0, 2000.0)
