/**
 * A knip reporter that prints how many files were looked at, so that `bun run check` can tell a clean project from an
 * empty one.
 */

// biome-ignore lint/style/noDefaultExport: knip calls a reporter's default export
export default ({ counters }: { counters: { processed: number } }): void => {
  console.log(`Scanned ${counters.processed} files.`)
}
