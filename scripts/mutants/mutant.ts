/**
 * A mutant: a breakage of one mechanism, small enough to slip through a review, and the tests that must notice it.
 *
 * It is data. Its search texts must occur exactly once each; where they don't, the code has moved and the mutant is stale,
 * which fails a run just as a survivor does.
 */

export interface Edit {
  /** From the root of the tree. */
  readonly file: string
  readonly search: string
  readonly replacement: string
}

/** One test that is expected to turn red. */
export interface Guard {
  readonly file: string
  /** Its own name, without those of the groups around it. */
  readonly test: string
}

export interface Mutant {
  readonly name: string
  /** What is broken, in one sentence. */
  readonly breaks: string
  /** The promise that falls with it, `P1` to `P15`; docs/testing.md tells them in a word each. */
  readonly promise: `P${number}`
  readonly edits: readonly Edit[]
  /** Quickest first: a trial stops at the first one that turns red. */
  readonly guards: readonly Guard[]
  /** A guard that needs luck is given several tries, and a reason is given here. */
  readonly tries?: { readonly max: number; readonly because: string }
}

/** Why this edit can't be made in this text; undefined when it can. */
function staleness({ file, search, replacement }: Edit, text: string): string | undefined {
  const count = text.split(search).length - 1
  if (search === replacement) return `${file}: the replacement changes nothing`
  if (count === 0) return `${file}: the search text is not there any more`
  return count > 1 ? `${file}: the search text is there ${count} times` : undefined
}

/** The text with the edit made. Not by `replace`, which would read `$` in the replacement as a pattern. */
function edited({ search, replacement }: Edit, text: string): string {
  return text.split(search).join(replacement)
}

/** Every text that the mutant changes, by file, or why it is stale. */
export async function mutate(
  mutant: Mutant,
  read: (file: string) => Promise<string>,
): Promise<{ readonly texts: ReadonlyMap<string, string> } | { readonly stale: string }> {
  const texts = new Map<string, string>()
  for (const edit of mutant.edits) {
    const text = texts.get(edit.file) ?? (await read(edit.file).catch(() => ''))
    const stale = staleness(edit, text)
    if (stale !== undefined) return { stale }
    texts.set(edit.file, edited(edit, text))
  }
  return { texts }
}
