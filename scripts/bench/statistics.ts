/** Medians and quantiles of what was measured. */

/** @throws RangeError for no values */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** Between the two nearest ranks, linearly. @throws RangeError for no values */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  const place = (sorted.length - 1) * share
  const [low, high] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]]
  if (low === undefined || high === undefined) throw new RangeError('There is nothing to take a quantile of.')
  return low + (high - low) * (place - Math.floor(place))
}

/** Three significant figures: more would only tell noise. */
export function rounded(value: number): number {
  return Number(value.toPrecision(3))
}
