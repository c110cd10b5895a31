/** What commands print: data to stdout, everything that is said about it to stderr. */

/** One line of JSON. */
export function print(data: unknown): void {
  console.log(JSON.stringify(data))
}

export function printLines(lines: readonly string[]): void {
  for (const line of lines) console.log(line)
}

export function tell(sentence: string): void {
  console.error(`millrace: ${sentence}`)
}

/** `name  value` of each field, names in one column; what is nested stays JSON. */
export function fieldLines(body: unknown): string[] {
  const fields = Object.entries(typeof body === 'object' && body !== null ? body : {})
  const width = Math.max(0, ...fields.map(([name]) => name.length))
  return fields.map(
    ([name, value]) => `${name.padEnd(width)}  ${typeof value === 'string' ? value : JSON.stringify(value)}`,
  )
}

/** Rows in columns, the first row being the heads. */
export function tableLines(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
}
