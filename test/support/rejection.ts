/** The error of a promise that must reject. */
export async function rejection(work: Promise<unknown>): Promise<Error> {
  const error: unknown = await work.then(
    () => new TypeError('it was expected to reject, and did not'),
    (thrown: unknown) => thrown,
  )
  return error instanceof Error ? error : new Error(String(error))
}
