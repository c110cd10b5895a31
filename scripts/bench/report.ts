/** How the result of a run is told: as JSON, as Markdown, as lines on a terminal. */
import type { Row } from './scenario.ts'
import type { Setting } from './setting.ts'

export interface BenchResult {
  readonly setting: Setting
  readonly scenarios: readonly Row[]
  /** Scenarios that broke off; the others are not worth less for it. */
  readonly failed: readonly string[]
}

export function jsonReport(result: BenchResult): string {
  return `${JSON.stringify(result, undefined, 2)}\n`
}

export function markdownReport({ setting, scenarios, failed }: BenchResult): string {
  const lines = scenarios.map((row) =>
    [
      '',
      `\`${row.name}\``,
      figure(row.value, row.unit),
      row.baseline === null ? '' : `${row.baselineName}: ${figure(row.baseline, row.unit)}`,
      row.ratio === null ? '' : `**${row.ratio}** (${row.spread.join(' – ')})`,
      row.budget,
      row.pass ? 'met' : '**missed**',
      '',
    ]
      .join(' | ')
      .trim(),
  )
  return `${settingText(setting)}

| scenario | Millrace | baseline in the same run | ratio, median (lowest – highest) | budget | |
|---|---|---|---|---|---|
${lines.join('\n')}
${failed.length === 0 ? '' : `\nBroke off, and not in the table: ${failed.join(', ')}.\n`}`
}

function settingText({ date, full, durability, payloadBytes, machine, versions, commit }: Setting): string {
  const kind = full ? 'Full run' : 'Quick run (--quick: fewer rounds, smaller backlogs)'
  const used = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  return `${kind} of ${date.slice(0, 16).replace('T', ' ')} UTC, commit ${commit}. ${machine.cores} cores (${machine.cpu}), ${machine.memoryGiB} GiB, ${machine.system}. ${used.join(', ')}. Durability ${durability}. Payload ${payloadBytes} bytes of JSON.`
}

/** One line for people. */
export function rowLine(row: Row): string {
  const ratio = row.ratio === null ? '' : `  ratio ${row.ratio} (${row.spread.join(' - ')})`
  const baseline = row.baseline === null ? '' : `  ${row.baselineName} ${figure(row.baseline, row.unit)}`
  const verdict = row.budget === '' ? '' : `  ${row.budget} ${row.pass ? 'met' : 'MISSED'}`
  return `${row.name.padEnd(20)} ${figure(row.value, row.unit)}${baseline}${ratio}${verdict}`
}

function figure(value: number, unit: string): string {
  return `${value.toLocaleString('en-US', { maximumFractionDigits: 2 })} ${unit}`
}
