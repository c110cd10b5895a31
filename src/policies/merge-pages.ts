/** One page out of several sorted lists: keys in byte order, each once, along the direction of the walk. Pure. */
export function mergePages(
  lists: readonly (readonly Buffer[])[],
  direction: 'forward' | 'backward',
  countMax: number,
): Buffer[] {
  const [only] = lists
  if (lists.length === 1 && only !== undefined) return only.slice(0, countMax)
  const sign = direction === 'forward' ? 1 : -1
  const sorted = lists.flat().sort((a, b) => sign * Buffer.compare(a, b))
  const page: Buffer[] = []
  for (const key of sorted) {
    if (page.length === countMax) break
    if (page.at(-1)?.equals(key) !== true) page.push(key)
  }
  return page
}
