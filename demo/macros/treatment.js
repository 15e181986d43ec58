// Chilled against non-chilled plants: mean uptake over all measurements, mean of the plants' largest uptakes.

const mean = (values) => values.reduce((total, value) => total + value, 0) / values.length;

function of(treatment) {
  const chosen = input.filter((plant) => plant.treatment === treatment);
  return {
    plants: chosen.length,
    mean_uptake: mean(chosen.flatMap((plant) => plant.uptake)),
    mean_maximum: mean(chosen.map((plant) => Math.max(...plant.uptake))),
  };
}

const [chilled, nonchilled] = [of('chilled'), of('nonchilled')];
output = { chilled, nonchilled, change: chilled.mean_uptake / nonchilled.mean_uptake - 1 };
