# Chilled against non-chilled plants: mean uptake over all measurements, mean of the plants' largest uptakes.

def mean(values):
    return sum(values) / len(values)


def of(treatment):
    chosen = [plant for plant in input if plant["treatment"] == treatment]
    return {
        "plants": len(chosen),
        "mean_uptake": mean([uptake for plant in chosen for uptake in plant["uptake"]]),
        "mean_maximum": mean([max(plant["uptake"]) for plant in chosen]),
    }


chilled, nonchilled = of("chilled"), of("nonchilled")
change = chilled["mean_uptake"] / nonchilled["mean_uptake"] - 1
output = {"chilled": chilled, "nonchilled": nonchilled, "change": change}
