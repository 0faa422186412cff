"""Random judgments and rankings with what trec_eval says of them, one a line of JSON: metrics.py SEED COUNT.

Scores are tied on purpose. trec_eval breaks ties by the larger id, and so does the ranking that is printed.
"""

import json
import random
import sys

import pytrec_eval

CUTS = [1, 3, 5, 10, 20]
NAMES = {"P": "precision", "recall": "recall", "map_cut": "map", "ndcg_cut": "ndcg", "success": "hit_rate"}

chance = random.Random(int(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    documents = [f"d{number}" for number in range(chance.randint(1, 40))]
    judged = chance.sample(documents, chance.randint(1, len(documents)))
    # Documents that are relevant and found by nothing.
    judged += [f"absent{number}" for number in range(chance.randint(0, 5))]
    grades = {document: chance.choice([0, 0, 1, 1, 2, 3]) for document in judged}
    if not any(grades.values()):
        continue
    found = chance.sample(documents, chance.randint(1, len(documents)))
    scores = {document: float(chance.randint(0, 4)) for document in found}
    cuts = ",".join(map(str, CUTS))
    measures = {f"{name}.{cuts}" for name in NAMES} | {"recip_rank"}
    values = pytrec_eval.RelevanceEvaluator({"q": grades}, measures).evaluate({"q": scores})["q"]
    expected = [["mrr", len(scores), values["recip_rank"]]]
    expected += [[NAMES[name], k, values[f"{name}_{k}"]] for name in NAMES for k in CUTS]
    ranking = sorted(scores, key=lambda document: (scores[document], document), reverse=True)
    print(json.dumps({"grades": grades, "ranking": ranking, "expected": expected}))
