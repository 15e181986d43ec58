# All plants at once, with numpy, scipy and pandas: saturation curves with standard errors, groups, and tests of the
# difference that chilling makes. Runs in the package set that the demo builds.

import numpy as np
import pandas as pd
from scipy import optimize, stats


def saturation(conc, vmax, k):
    return vmax * conc / (k + conc)


def fitted(plant):
    conc, uptake = np.asarray(plant["conc"], float), np.asarray(plant["uptake"], float)
    start = (uptake.max(), np.median(conc))
    (vmax, k), covariance = optimize.curve_fit(saturation, conc, uptake, p0=start, xtol=1e-14, ftol=1e-14)
    return {"vmax": vmax, "k": k, "vmax_error": np.sqrt(covariance[0, 0]), "mean_uptake": uptake.mean()}


plants = pd.DataFrame([{**{key: plant[key] for key in ("plant", "type", "treatment")}, **fitted(plant)} for plant in input])
groups = plants.groupby(["type", "treatment"])[["mean_uptake", "vmax", "k"]].mean().reset_index()


def chilling(name):
    of_type = plants[plants["type"] == name]
    chilled, nonchilled = (of_type.loc[of_type["treatment"] == each, "vmax"] for each in ("chilled", "nonchilled"))
    test = stats.ttest_ind(chilled, nonchilled, equal_var=False)
    return {"difference": chilled.mean() - nonchilled.mean(), "t": float(test.statistic), "p": float(test.pvalue)}


output = {
    "fits": plants.set_index("plant")[["vmax", "k", "vmax_error"]].to_dict("index"),
    "groups": groups.to_dict("records"),
    "chilling": {name: chilling(name) for name in sorted(plants["type"].unique())},
}
