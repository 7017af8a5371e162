//! What retention keeps: rule by rule, against an independent planner, and by its properties.

mod oracle;
mod properties;
mod restore;
mod rules;
mod stage;
