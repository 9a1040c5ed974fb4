//! What runs the ledger: `main` puts it into a process, and the simulation into one of its own.

use jackpot_core::log::Log;
use jackpot_core::metrics::business::Business;
use jackpot_core::runner::Context;
use jackpot_core::service::{Running, driven};
use jackpot_core::snapshot::{Key, drive_archived};

use crate::committer::{Committer, Settings};
use crate::views::exact::{ExactView, Kind};
use crate::views::totals::TotalsView;

/// The committer over all of so many partitions, with the archivist of its books, and the views of what it commits,
/// which tell `business` of it where there is one.
pub fn parts<L: Log>(
    context: &Context<L>,
    total: u16,
    settings: Settings,
    business: Option<Business>,
) -> Vec<Running> {
    let committer = move |context, desk| Committer::new(context, total, settings).with_desk(desk);
    vec![
        Box::pin(drive_archived(context.clone(), Key::ledger(), (0..total).collect(), committer)),
        driven(context, TotalsView::new(context.clone()).with_business(business.clone())),
        driven(context, ExactView::new(context.clone(), Kind::Hits)),
        driven(context, ExactView::new(context.clone(), Kind::Windows).with_business(business)),
    ]
}
