/** Waits for a condition that no event announces, such as the state of another process. */
export async function until(
  what: string,
  test: () => boolean | Promise<boolean>,
  limitMs = 20_000,
): Promise<void> {
  const end = performance.now() + limitMs
  while (!(await test())) {
    if (performance.now() > end) throw new Error(`waited ${limitMs} ms in vain for ${what}`)
    await Bun.sleep(5)
  }
}
