/** How far a replay is, in the words that its progress line shows. */
import { number, type Progression, tellAs } from '../fleet/progress.ts'

export interface Standing {
  readonly total: number
  readonly accepted: number
  /** Accepted by this run, for the rate. */
  readonly acceptedNow: number
  /** Records in the views, as last seen. */
  readonly folded: number
  readonly kills: number
  /** Since the first POST. */
  readonly seconds: number
}

export function progression(standing: Standing): Progression {
  const { total, accepted, acceptedNow, folded, kills, seconds } = standing
  const rate = acceptedNow / seconds
  const leftS = rate > 0 ? Math.ceil((total - accepted) / rate) : Number.NaN
  const parts = [
    `${number(accepted)} of ${number(total)} in`,
    `${number(rate)}/s`,
    `lag ${number(Math.max(0, accepted - folded))}`,
    accepted < total ? `${Number.isNaN(leftS) ? '?' : leftS} s left` : 'waiting for the views',
    ...(kills > 0 ? [`${kills} kills`] : []),
  ]
  return { share: accepted / total, parts }
}

export function tell(line: string): void {
  tellAs('replay', line)
}
