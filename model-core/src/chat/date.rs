//! What `strftime_now` answers: Python's `strftime` in the C locale, for a number of seconds since 1970. Knows no clock
//! and no time zones: whoever gives the seconds has chosen both.

use minijinja::{Error, ErrorKind};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const SECONDS_PER_DAY: i64 = 86_400;

/// A moment as a calendar and a clock show it.
struct Moment {
    year: i64,
    /// From 1.
    month: i64,
    /// Of the month, from 1.
    day: i64,
    /// Of the year, from 1.
    year_day: i64,
    /// From 0, a Sunday.
    week_day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Moment {
    fn of(seconds: i64) -> Self {
        let (days, clock) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
        let (year, month, day) = civil(days);
        let first = days_before(year, 1, 1);
        Self {
            year,
            month,
            day,
            year_day: days - first + 1,
            week_day: (days + 4).rem_euclid(7), // 1 January 1970 was a Thursday
            hour: clock / 3600,
            minute: clock / 60 % 60,
            second: clock % 60,
        }
    }

    fn day_name(&self) -> &'static str {
        DAYS.get(self.week_day as usize).copied().unwrap_or_default()
    }

    fn month_name(&self) -> &'static str {
        MONTHS.get(self.month as usize - 1).copied().unwrap_or_default()
    }

    /// Hours of a clock with twelve.
    fn half_day_hour(&self) -> i64 {
        (self.hour + 11) % 12 + 1
    }

    fn half(&self) -> &'static str {
        if self.hour < 12 { "AM" } else { "PM" }
    }

    /// Weeks of the year that began on the week day `first` before this day's end.
    fn week(&self, first: i64) -> i64 {
        (self.year_day + 6 - (self.week_day - first).rem_euclid(7)) / 7
    }

    /// The year and number of the week by ISO 8601: weeks begin on Mondays and belong to the year of their Thursday.
    fn iso_week(&self) -> (i64, i64) {
        let thursday = days_before(self.year, self.month, self.day) - (self.week_day + 6) % 7 + 3;
        let (year, _, _) = civil(thursday);
        (year, (thursday - days_before(year, 1, 1)) / 7 + 1)
    }
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. By years of 400 that begin in March, so that the
/// day of a leap year comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097;
    let from_march_of_year_0 = days + 719_468;
    let (era, day) = (from_march_of_year_0.div_euclid(DAYS_PER_ERA), from_march_of_year_0.rem_euclid(DAYS_PER_ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let year_day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * year_day + 2) / 153; // from March; each five months have 153 days
    let month_day = year_day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, month_day)
}

/// Days from 1 January 1970 to a day.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let year_day = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + 365 * year + year / 4 - year / 100 + year_day - 719_468
}

/// `seconds` since 1970 in the form of `format`. Knows the codes of the C standard but those for time zones, which are
/// empty as in Python for a time without one, and `%-d` and its like of glibc, which leave out leading zeros.
pub(super) fn strftime(seconds: i64, format: &str) -> Result<String, Error> {
    let moment = Moment::of(seconds);
    let mut out = String::with_capacity(format.len() + 16);
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut code = rest.next().unwrap_or('%');
        let trimmed = code == '-';
        if trimmed {
            code = rest.next().unwrap_or('-');
        }
        let text = moment.field(seconds, code)?;
        let bare = text.trim_start_matches(['0', ' ']);
        out.push_str(match bare {
            _ if !trimmed => &text,
            "" if !text.is_empty() => "0",
            bare => bare,
        });
    }
    Ok(out)
}

impl Moment {
    fn field(&self, seconds: i64, code: char) -> Result<String, Error> {
        let two = |number: i64| format!("{number:02}");
        let short = |name: &str| name.get(..3).unwrap_or_default().to_owned();
        let nested = |format: &str| strftime(seconds, format);
        Ok(match code {
            'a' => short(self.day_name()),
            'A' => self.day_name().to_owned(),
            'b' | 'h' => short(self.month_name()),
            'B' => self.month_name().to_owned(),
            'c' => nested("%a %b %e %H:%M:%S %Y")?,
            'C' => two(self.year.div_euclid(100)),
            'd' => two(self.day),
            'D' | 'x' => nested("%m/%d/%y")?,
            'e' => format!("{:2}", self.day),
            'f' => "000000".to_owned(),
            'F' => nested("%Y-%m-%d")?,
            'g' => two(self.iso_week().0.rem_euclid(100)),
            'G' => self.iso_week().0.to_string(),
            'H' => two(self.hour),
            'I' => two(self.half_day_hour()),
            'j' => format!("{:03}", self.year_day),
            'm' => two(self.month),
            'M' => two(self.minute),
            'n' => "\n".to_owned(),
            'p' => self.half().to_owned(),
            'r' => nested("%I:%M:%S %p")?,
            'R' => nested("%H:%M")?,
            's' => seconds.to_string(),
            'S' => two(self.second),
            't' => "\t".to_owned(),
            'T' | 'X' => nested("%H:%M:%S")?,
            'u' => ((self.week_day + 6) % 7 + 1).to_string(),
            'U' => two(self.week(0)),
            'V' => two(self.iso_week().1),
            'w' => self.week_day.to_string(),
            'W' => two(self.week(1)),
            'y' => two(self.year.rem_euclid(100)),
            'Y' => self.year.to_string(),
            'z' | 'Z' => String::new(),
            '%' => "%".to_owned(),
            _ => {
                let reason = format!("strftime_now knows no %{code}");
                return Err(Error::new(ErrorKind::InvalidOperation, reason));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Python: `datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None).strftime(format)`.
    #[test]
    fn as_python_writes_it() {
        let all = "%a %A %b %B %C %d %D %e %F %g %G %H %I %j %m %M %p %r %R %S %T %u %U %V %w %W %y %Y %c %x %X %%";
        let cases = [
            (
                1_722_000_000,
                all,
                "Fri Friday Jul July 20 26 07/26/24 26 2024-07-26 24 2024 13 01 208 07 20 PM 01:20:00 PM 13:20 00 13:20:00 5 29 30 5 30 24 2024 Fri Jul 26 13:20:00 2024 07/26/24 13:20:00 %",
            ),
            (1_709_164_799, "%d %B %Y, %j %H:%M:%S %-d|%-m|%-H", "28 February 2024, 059 23:59:59 28|2|23"),
            (1_709_164_800, "%d %B %Y %-H %-j %e|%-I", "29 February 2024 0 60 29|12"),
            (0, "%c %G-W%V %U %W", "Thu Jan  1 00:00:00 1970 1970-W01 00 00"),
            (1_609_459_200, "%F %A %G-W%V %U %W %p %I", "2021-01-01 Friday 2020-W53 00 00 AM 12"),
            (4_107_542_399, "%d %b %Y %a", "28 Feb 2100 Sun"),
            (-1, "%F %T %a", "1969-12-31 23:59:59 Wed"),
        ];
        for (seconds, format, expected) in cases {
            assert_eq!(strftime(seconds, format).unwrap(), expected, "{seconds} {format}");
        }
    }

    #[test]
    fn an_unknown_code_is_refused() {
        assert!(strftime(0, "%Q").unwrap_err().to_string().contains("%Q"));
        assert_eq!(strftime(0, "100%").unwrap(), "100%");
    }

    proptest::proptest! {
        #[test]
        fn days_and_dates_are_each_others_inverse(day in -800_000i64..800_000) {
            let (year, month, of_month) = civil(day);
            proptest::prop_assert_eq!(days_before(year, month, of_month), day);
            proptest::prop_assert!((1..=12).contains(&month) && (1..=31).contains(&of_month));
        }
    }
}
